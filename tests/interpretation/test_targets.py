"""Classes as targets, alone and one against another."""

from __future__ import annotations

import torch

from vitrail.interpretation.targets import Target, target_values


def test_a_class_and_a_difference():
    logits = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0]])
    assert target_values(logits, [Target(1), Target(2, against=0)]).tolist() == [5.0, 6.0]
    assert target_values(logits, [Target(0), Target(0)]).tolist() == [1.0, 3.0]


def test_gradients_flow_to_both():
    logits = torch.zeros(1, 3, requires_grad=True)
    target_values(logits, [Target(0, against=2)]).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, 0.0, -1.0]]
