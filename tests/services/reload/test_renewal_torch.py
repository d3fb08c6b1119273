"""Networks among a model's attributes: new code, and the very same weights."""

from __future__ import annotations

import copy
import functools
import weakref
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
nn = torch.nn

from grym_nb.services.reload.renewal import renewed  # noqa: E402
from tests.services.reload.test_renewal import Change, Holder, NewPart, Part, by_identity  # noqa: E402


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self, inner: Any = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.inner = inner
        self.register_buffer("gain", torch.ones(3))

    def forward(self, x: Any) -> Any:
        x = self.norm(self.linear(x)) * self.gain
        return x if self.inner is None else self.inner(x)

    def hook(self, module: Any, args: Any, output: Any) -> Any:
        return output + 100


class NewNet(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        x = self.norm(self.linear(x)) * self.gain + 1
        return x if self.inner is None else self.inner(x)

    def hook(self, module: Any, args: Any, output: Any) -> Any:
        return output + 200


def changed(pairs: dict[Any, Any] | None = None, **more: Any) -> Change:
    return Change({Net: NewNet, **(pairs or {})}, **more)


def a_batch() -> Any:
    return torch.arange(12.0).reshape(4, 3)


def test_a_network_in_a_network_runs_new_code_on_the_very_same_weights() -> None:
    net = Net(Net()).eval()
    x = a_batch()
    change = changed()
    new = change(net=net)
    before = net(x)
    assert type(new.net) is type(new.net.inner) is NewNet and change.stays == ()
    assert torch.equal(new.net.inner(x), net.inner(x) + 1)
    assert torch.equal(new.net(x), net.inner(net.norm(net.linear(x)) * net.gain + 1) + 1)
    assert torch.equal(net(x), before) and type(net.inner) is Net
    for (name, was), (other, now) in zip(net.named_parameters(), new.net.named_parameters(), strict=True):
        assert name == other and was is now and was.data_ptr() == now.data_ptr()
    assert all(a is b for a, b in zip(net.buffers(), new.net.buffers(), strict=True))
    assert [*net.state_dict()] == [*new.net.state_dict()]
    assert new.net.linear is net.linear, "an unchanged layer is the same"


def test_training_through_the_new_one_moves_the_very_same_parameters() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    change = changed()
    new = change(net=net, optimizer=optimizer)
    assert new.optimizer is optimizer and change.renewal.own == {"net"}
    was = net.linear.weight.detach().clone()
    (new.net(a_batch()) ** 2).sum().backward()
    new.optimizer.step()
    assert not torch.equal(net.linear.weight, was) and new.net.linear.weight is net.linear.weight


def test_what_is_set_or_registered_on_the_new_one_is_not_seen_by_the_old() -> None:
    net = Net(Net())
    new = changed()(net=net).net
    new.eval()
    assert net.training and not new.training and new.inner.training is False and net.inner.training
    new.more = nn.Linear(1, 1)
    new.register_buffer("more_gain", torch.ones(1), persistent=False)
    new.weight = nn.Parameter(torch.ones(1))
    new.inner.gain = torch.zeros(3)
    handle = new.register_forward_hook(lambda *_: None, with_kwargs=False, always_call=True)
    new.register_full_backward_pre_hook(lambda *_: None)
    names = {"more", "more_gain", "weight"}
    assert not names & {*net._modules, *net._parameters, *net._buffers, *net._non_persistent_buffers_set}
    assert not net._forward_hooks and not net._forward_hooks_always_called and not net._backward_pre_hooks
    assert torch.equal(net.inner.gain, torch.ones(3))
    handle.remove()
    assert not new._forward_hooks


def test_hooks_run_the_code_of_the_one_on_which_they_are() -> None:
    net = Net().eval()
    holder = Holder()
    holder.handle = net.linear.register_forward_hook(net.hook)  # type: ignore[attr-defined]
    x, plain = a_batch(), nn.functional.linear
    change = changed()
    new = change(holder=holder, net=net)
    linear = plain(x, net.linear.weight, net.linear.bias)
    assert new.net.linear is not net.linear and new.net.linear.weight is net.linear.weight
    assert torch.equal(net.linear(x), linear + 100) and torch.equal(new.net.linear(x), linear + 200)
    new.holder.handle.remove()
    assert torch.equal(net.linear(x), linear + 100) and torch.equal(new.net.linear(x), linear)
    assert change.stays == ()
    holder.handle.remove()  # type: ignore[attr-defined]
    assert torch.equal(net.linear(x), linear)


def test_a_handle_with_more_than_one_table_removes_from_each_of_the_new_ones() -> None:
    net = Net().eval()
    handle = net.register_forward_hook(net.hook, with_kwargs=False, always_call=True)
    new = changed()(handle=handle, net=net)
    assert len(new.net._forward_hooks) == len(new.net._forward_hooks_always_called) == 1
    new.handle.remove()
    assert not new.net._forward_hooks and not new.net._forward_hooks_always_called
    assert len(net._forward_hooks) == len(net._forward_hooks_always_called) == 1


def test_a_hook_of_the_model_on_a_settled_network_is_rebound() -> None:
    class Model:
        def __init__(self) -> None:
            self.net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
            self.handle = self.net[0].register_forward_pre_hook(self.before)

        def before(self, module: Any, args: Any) -> Any:
            return (args[0] * 0,)

    class NewModel:
        def before(self, module: Any, args: Any) -> Any:
            return (args[0] * 0 + 1,)

    old, new = Model(), object.__new__(NewModel)
    renewal = renewed(vars(old), by_identity({Model: NewModel}), (old, new))
    vars(new).update(renewal.state)
    x, net = a_batch(), new.net  # type: ignore[attr-defined]
    assert torch.equal(net(x), torch.relu(old.net[0].weight.sum(1) + old.net[0].bias).expand(4, 3)) or (
        torch.allclose(net(x), torch.relu(old.net[0].weight.sum(1) + old.net[0].bias).expand(4, 3))
    )
    assert torch.equal(old.net(x), torch.relu(old.net[0].bias).expand(4, 3))
    assert net[1] is old.net[1] and renewal.stays == ()


def test_containers_of_torch_are_made_anew_on_the_way_to_a_changed_child() -> None:
    net, layer = Net(), nn.Linear(3, 3)
    new = changed()(
        chain=nn.Sequential(layer, net),
        many=nn.ModuleList([net, layer]),
        named=nn.ModuleDict({"net": net}),
        aside=nn.Sequential(layer),
    )
    assert type(new.chain) is nn.Sequential and type(new.chain[1]) is NewNet
    assert new.chain[1] is new.many[0] is new.named["net"], "what is tied stays tied"
    assert new.chain[0] is new.many[1] is layer and new.aside[0] is layer
    assert len([*new.chain.parameters()]) == len([*layer.parameters()]) + len([*net.parameters()])


def test_tied_children_and_circles_are_one() -> None:
    net = Net()
    outer = Net(net)
    outer.again = net
    net.parents = [outer]
    net.owner = weakref.ref(outer)
    new = changed()(net=outer).net
    assert new.inner is new.again and new.inner.parents == [new] and new.inner.owner() is new
    assert net.parents == [outer] and net.owner() is outer


def test_a_model_that_is_itself_a_network() -> None:
    old, part = Net(Net()), Part()
    old.part = part
    new = object.__new__(NewNet)
    renewal = renewed(vars(old), by_identity({Net: NewNet, Part: NewPart}), (old, new))
    object.__setattr__(new, "__dict__", renewal.state)
    new.more = nn.Linear(1, 1)
    new.register_forward_hook(lambda *_: None)
    assert "more" not in old._modules and not old._forward_hooks and type(new.inner) is NewNet
    assert next(new.parameters()) is old.linear.weight


def test_recurrent_layers_keep_their_flat_weights_to_themselves() -> None:
    class Recurrent(nn.GRU):  # type: ignore[misc]
        pass

    class NewRecurrent(nn.GRU):  # type: ignore[misc]
        pass

    layer = Recurrent(3, 3)
    new = changed({Recurrent: NewRecurrent})(layer=layer).layer
    x = torch.ones(2, 3)
    assert torch.equal(new(x)[0], layer(x)[0]) and type(new) is NewRecurrent
    weight = layer.weight_ih_l0
    new.weight_ih_l0 = nn.Parameter(torch.zeros_like(weight))
    assert layer._flat_weights[0] is weight and layer.weight_ih_l0 is weight


def test_hooks_on_tensors_stay_and_are_told() -> None:
    net = Net()
    change = changed()
    net.linear.weight.register_hook(functools.partial(net.hook, None, None))
    change(net=net, part=torch.zeros(1))
    assert change.stays == (
        "net._modules['linear']._parameters['weight']: a Parameter that leads to an OrderedDict",
    )


def test_what_is_shared_with_others_keeps_its_code() -> None:
    net = Net(Net())
    change = changed(apart=(net,))
    new = change(net=net, inner=net.inner)
    assert new.net is net and new.inner is net.inner and change.renewal.made == 0
    assert change.stays == ("net: a Net, shared with other services, that is or leads to older code",)


def test_arrays_of_numbers_are_leaves_and_those_of_objects_are_told() -> None:
    numpy = pytest.importorskip("numpy")
    numbers, things = numpy.zeros(3), numpy.array([Part(), 1], dtype=object)
    change = changed()
    new = change(numbers=numbers, things=things)
    assert new.numbers is numbers and new.things is things
    assert change.stays == ("things: a ndarray that leads to an instance of the older Part",)


def test_tensors_of_other_kinds_are_not_asked() -> None:
    class Odd(torch.Tensor):  # type: ignore[misc, name-defined]
        @classmethod
        def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("asked")

    odd = torch.zeros(2).as_subclass(Odd)
    change = changed()
    assert change(odd=odd, net=Net()).odd is odd and change.stays == ()


def test_a_deep_copy_of_the_new_network_is_whole() -> None:
    net = Net().eval()
    new = changed()(net=net).net
    assert torch.equal(copy.deepcopy(new)(a_batch()), new(a_batch()))
