"""Cards of the trained models, as `zoo card` measured them."""
