"""Write networks as C99 source: exact integers, for microcontrollers and anything else with a C compiler."""
