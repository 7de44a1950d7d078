"""Reductions that wait until there are enough tensors for a group; see `groups`.

A hook that reduces its tensor at once costs a call for each tensor. So the tensor is only noted,
and all that wait are reduced together: when they are 128, or have 4 MB (64 MB on a device), and
when a forward or backward pass ends. By then a tensor may have been overwritten: by
`ReLU(inplace=True)`, by `x += ...`, or because its memory was freed. Its numbers would be wrong.
So:

- The first time that a layer's output, or its gradient, is seen, it is reduced at once, and again
  with its group, for which it waits longer than it ever will. If that gives other numbers, or
  autograd counts another version of the tensor, it never waits.
- Autograd's version and the address are compared before a group is reduced. If they differ, the
  value is missing in this step, which is said once, and the layer's tensors never wait again.
- On a device, both numbers of the first time are compared once the step has ended, for which it
  is waited for. Two kernels add in another order, so they may differ by rounding.
- Large tensors on the CPU, parameters and views of them never wait, nor do tensors of a device that
  works on several streams.

A tensor that waits is kept in memory, and autograd does not reuse it for a sum of gradients: it
makes a new tensor with the same numbers.
"""
