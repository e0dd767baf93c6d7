"""Tables in the papers' shape, printed numbers beside them."""
