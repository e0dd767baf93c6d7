"""The hot loops: a torch reference of each, a compiled CPU kernel, a Triton kernel, and one dispatch by
device.
"""
