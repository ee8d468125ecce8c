"""Names of the mesh axes, for the floors that place arrays and those that communicate."""

DATA = "data"  # copies of the model, each with its rows
FSDP = "fsdp"  # rows too, and the parameters are spread over it
SEQUENCE = "sequence"  # tokens of a row
TENSOR = "tensor"  # attention heads and hidden features
MESH = (DATA, FSDP, SEQUENCE, TENSOR)
BATCH = (DATA, FSDP)
