"""Networks as the chip holds them: the form that every format reads or writes, made of a network, and made a model."""
