"""Edits of what a service keeps: how it is loaded, made and configured, and what its state has hold of."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["STATE"]

_INIT = "def __init__(self, *, gain=2):\n    self.gain = gain"
_NET = """
    import torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
        def forward(self, x):
            return x + 1
"""

STATE: tuple[Kind, ...] = (
    kind(
        "load",
        service("return self.net, x", load="self.net = 'one'"),
        ("'one'", "'two'"),
        *(("one", 3), ("two", 3)),
        how="loaded",
    ),
    kind(
        "what load calls",
        service("return self.net", head="def built():\n    return 'one'", load="self.net = built()"),
        ("'one'", "'two'"),
        *("one", "two"),
        how="loaded",
    ),
    kind(
        "a constant that load reads",
        service("return self.net", head="SIZE = 1", load="self.net = 'net' * SIZE"),
        ("SIZE = 1", "SIZE = 2"),
        *("net", "netnet"),
        how="loaded",
    ),
    kind(
        "a new attribute in __init__",
        service("return self.gain * x", body=_INIT),
        [("self.gain = gain", "self.gain = gain\n        self.bias = 1"), ("* x", "* x + self.bias")],
        *(6, 7),
    ),
    kind(
        "a value in __init__",
        service("return self.gain * x", body="def __init__(self):\n    self.gain = 2"),
        ("self.gain = 2", "self.gain = 5"),
        *(6, 15),
    ),
    kind(
        "a value in __init__ that load reads",
        service("return self.net", body=_INIT, load="self.net = 'net' * self.gain"),
        ("self.gain = gain", "self.gain = gain + 1"),
        *("netnet", "netnetnet"),
        how="loaded",
    ),
    kind(
        "the default of a config value",
        service("return self.gain * x", body=_INIT),
        ("gain=2", "gain=5"),
        *(6, 15),
    ),
    kind(
        "the default of a config value that is given",
        service("return self.gain * x", body=_INIT),
        ("gain=2", "gain=5"),
        *(9, 9),
        config={"gain": 3},
    ),
    kind(
        "a class attribute",
        service("return self.gain * x", body="gain = 2"),
        ("gain = 2", "gain = 5"),
        *(6, 15),
    ),
    kind(
        "a class's name that says what it sets",
        service("return self._S__secret", body="def __init__(self):\n    self.__secret = 1"),
        ("return self._S__secret", "return self._S__secret + 1"),
        *(1, 2),
    ),
    kind(
        "migrate",
        service("return self.counts", load="self.counts = [1, 2]"),
        [
            ("return self.counts", "return self.total"),
            (
                '    @task("held")',
                "    def migrate(self, state, version):\n"
                "        return {**state, 'total': sum(state['counts']) + (version[0] == 'v')}\n"
                '    @task("held")',
            ),
        ],
        *([1, 2], 4),
    ),
    kind(
        "a method that the state holds",
        service(
            "return self.callback(x)",
            body="def more(self, x):\n    return x + 1",
            load="self.callback = self.more",
        ),
        ("self.callback(x)", "self.callback(x) * 10"),
        *(4, 40),
    ),
    kind(
        "a method that the state holds, edited",
        service(
            "return self.callback(x)",
            body="def more(self, x):\n    return x + 1\ndef __init__(self):\n    self.callback = self.more",
        ),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a function that the state holds",
        service(
            "return self.callback(x)",
            head="def more(x):\n    return x + 1",
            body="def __init__(self):\n    self.callback = more",
        ),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a forward hook of a torch model",
        service(
            "import torch\nreturn self.net(torch.ones(1)).item()",
            head="import torch",
            body="def hook(self, module, given, out):\n    return out * 0 + 1",
            load="self.net = torch.nn.Linear(1, 1)\nself.net.register_forward_hook(self.hook)",
            held="self.weights, self.net.weight",
        ),
        ("* 0 + 1", "* 0 + 2"),
        *(1.0, 2.0),
        needs="torch",
    ),
    kind(
        "a torch module of the user's, in the state",
        service(
            "return self.net(torch.ones(1)).item(), isinstance(self.net, Net)",
            head=_NET,
            load="self.net = Net()",
            held="self.weights, self.net.layer.weight",
        ),
        ("return x + 1", "return x + 2"),
        *((2.0, True), (3.0, True)),
        needs="torch",
    ),
    kind(
        "how a torch module of the user's is made",
        service(
            "return self.net.layer.weight.numel()",
            head=_NET,
            load="self.net = Net()",
        ),
        ("Linear(1, 1)", "Linear(1, 2)"),
        *(1, 2),
        how="loaded",
        needs="torch",
    ),
)
