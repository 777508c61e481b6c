"""The released model, written again by independent means: what tests and benchmarks hold the package against.

`oracle` is a forward pass in plain numpy loops, `torch_model` is made of PyTorch's own layers, and `fuxictr_model` of
the layers of fuxictr, which the release stands on.
"""
