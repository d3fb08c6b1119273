"""Memory and devices are told as the machine's own files and torch tell them, and None is not guessed."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from grym_nb.devices import (
    Device,
    MemoryLimit,
    ProcessMemory,
    devices,
    memory_available,
    memory_limit,
    memory_total,
    process_memory,
)

STATUS = "Name:\tpython\nVmPeak:\t  900 kB\nVmRSS:\t  700 kB\nRssAnon:\t     500 kB\nThreads:\t3\n"
MEMINFO = (
    "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1500 kB\nHugePages_Total:       0\n"
)
MiB = 1024**2


class TestMemory:
    def test_a_process_is_read_from_its_status(self, tmp_path: Path) -> None:
        status = tmp_path / "status"
        status.write_text(STATUS)
        assert process_memory(status=status) == ProcessMemory(700 * 1024, 500 * 1024)

    def test_an_old_kernel_does_not_say_what_is_anonymous(self, tmp_path: Path) -> None:
        status = tmp_path / "status"
        status.write_text("VmRSS:\t  700 kB\n")
        assert process_memory(status=status) == ProcessMemory(700 * 1024, None)

    def test_without_proc_psutil_is_asked(self, tmp_path: Path) -> None:
        psutil = pytest.importorskip("psutil")
        nothing = tmp_path / "nothing"
        found = process_memory(status=nothing)
        assert (found.rss > 10**6, found.anonymous) == (True, None)
        assert memory_total(meminfo=nothing) == psutil.virtual_memory().total
        assert 0 < memory_available(meminfo=nothing) <= memory_total(meminfo=nothing)

    def test_the_machine_is_read_from_meminfo(self, tmp_path: Path) -> None:
        meminfo = tmp_path / "meminfo"
        meminfo.write_text(MEMINFO)
        assert (memory_total(meminfo=meminfo), memory_available(meminfo=meminfo)) == (
            2000 * 1024,
            1500 * 1024,
        )

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
    def test_memory_that_is_allocated_shows(self) -> None:
        """In a process of its own: here other tests' garbage may go at the same moment."""
        code = (
            "from grym_nb.devices import process_memory as now\n"
            "before = now(); block = bytearray(b'x') * (50 * 10**6); after = now()\n"
            "assert after.anonymous - before.anonymous > 40 * 10**6, (before, after)\n"
            "assert after.rss >= after.anonymous and len(block) == 50 * 10**6"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestMemoryLimit:
    @pytest.fixture
    def groups(self, tmp_path: Path) -> Callable[[str, dict[str, str]], MemoryLimit | None]:
        def limit(membership: str, files: dict[str, str], **environ: str) -> MemoryLimit | None:
            for name, text in files.items():
                (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "cgroup" / name).write_text(text)
            (tmp_path / "self").write_text(membership)
            return memory_limit(cgroups=tmp_path / "cgroup", membership=tmp_path / "self", environ=environ)

        return limit

    def test_no_cgroup_and_no_variable_is_no_limit(self, tmp_path: Path) -> None:
        assert memory_limit(cgroups=tmp_path, membership=tmp_path / "none", environ={}) is None

    def test_v2_limits_by_memory_max_and_does_not_count_page_cache(self, groups: Any) -> None:
        files = {
            "user/memory.max": "5000\n",
            "user/memory.current": "3000\n",
            "user/memory.stat": "anon 10\ninactive_file 1200\nactive_file 7\n",
        }
        assert groups("0::/user\n", files) == MemoryLimit(5000, 1800, "cgroup v2")

    def test_a_parents_limit_binds_when_it_is_lower(self, groups: Any) -> None:
        files = {
            "a/memory.max": "2000\n",
            "a/memory.current": "500\n",
            "a/b/memory.max": "max\n",
            "a/b/c/memory.max": "3000\n",
        }
        assert groups("0::/a/b/c\n", files) == MemoryLimit(2000, 500, "cgroup v2")

    def test_inside_a_container_the_group_is_mounted_at_the_root(self, groups: Any) -> None:
        files = {"memory.max": "4000\n", "memory.current": "100\n"}
        assert groups("0::/system.slice/docker-1234.scope\n", files) == MemoryLimit(4000, 100, "cgroup v2")

    def test_v1_limits_by_limit_in_bytes(self, groups: Any) -> None:
        files = {
            "memory/docker/x/memory.limit_in_bytes": "6000\n",
            "memory/docker/x/memory.usage_in_bytes": "2500\n",
            "memory/docker/x/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
        membership = "5:cpu,cpuacct:/\n4:memory:/docker/x\n0::/\n"
        assert groups(membership, files) == MemoryLimit(6000, 2000, "cgroup v1")

    def test_what_v1_writes_for_no_limit_is_none(self, groups: Any) -> None:
        assert groups("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}) is None

    def test_v2_max_is_no_limit(self, groups: Any) -> None:
        assert groups("0::/\n", {"memory.max": "max\n"}) is None

    def test_mem_limit_of_the_environment_counts_when_it_is_lowest(self, groups: Any) -> None:
        files = {"memory.max": "4000\n"}
        assert groups("0::/\n", files, MEM_LIMIT="3 KB") == MemoryLimit(3000, None, "MEM_LIMIT")
        assert groups("0::/\n", files, MEM_LIMIT="5000") == MemoryLimit(4000, None, "cgroup v2")
        assert groups("0::/\n", files, MEM_LIMIT="3500") == MemoryLimit(3500, None, "MEM_LIMIT")
        assert groups("0::/\n", files, MEM_LIMIT="0") == MemoryLimit(4000, None, "cgroup v2")

    def test_a_mem_limit_that_cannot_be_read_is_logged_and_not_used(
        self, groups: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert groups("", {}, MEM_LIMIT="plenty") is None
        assert "MEM_LIMIT" in caplog.text and "'plenty' is not a size" in caplog.text

    def test_the_real_machine_has_an_answer(self) -> None:
        limit = memory_limit()
        assert limit is None or limit.size > 0


def refused(*args: object) -> Any:
    raise RuntimeError("no kernel image\nis available")


def fake_torch(*, cuda: dict[str, Any] | None = None, mps: dict[str, Any] | None = None) -> Any:
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(is_available=lambda: cuda is not None, **(cuda or {}))
    available = SimpleNamespace(is_available=lambda: mps is not None)
    torch.backends = SimpleNamespace(mps=available)
    torch.mps = SimpleNamespace(**(mps or {}))
    return torch


CUDA: dict[str, Any] = {
    "device_count": lambda: 2,
    "is_initialized": lambda: True,
    "mem_get_info": lambda index: ((index + 1) * 100, 1000),
    "get_device_name": lambda index: f"Card {index}",
}


class TestDevices:
    @pytest.fixture
    def torch_is(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
        return lambda module: monkeypatch.setitem(sys.modules, "torch", module)

    @pytest.fixture
    def cpu(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A machine of two cores and known memory."""
        (tmp_path / "meminfo").write_text(MEMINFO)
        (tmp_path / "self").write_text("0::/\n")
        for function, keywords in (
            (memory_total, {"meminfo": tmp_path / "meminfo"}),
            (memory_available, {"meminfo": tmp_path / "meminfo"}),
            (memory_limit, {"cgroups": tmp_path, "membership": tmp_path / "self", "environ": {}}),
        ):
            assert function.__kwdefaults__ is not None
            for name, value in keywords.items():
                monkeypatch.setitem(function.__kwdefaults__, name, value)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")

    PLAIN = Device("cpu", "cpu", 2000 * 1024, 1500 * 1024, "2 cores, x86_64")

    def test_torch_is_not_imported_to_answer(self, cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        assert devices() == (self.PLAIN,)
        assert "torch" not in sys.modules

    def test_what_torch_knows_is_listed_after_the_cpu(
        self, cpu: None, torch_is: Callable[[Any], None]
    ) -> None:
        torch_is(fake_torch(cuda=CUDA))
        assert devices() == (
            self.PLAIN,
            Device("cuda:0", "cuda", 1000, 100, "Card 0"),
            Device("cuda:1", "cuda", 1000, 200, "Card 1"),
        )

    def test_a_card_that_is_not_in_use_is_not_opened_unasked(
        self, cpu: None, torch_is: Callable[[Any], None]
    ) -> None:
        torch_is(fake_torch(cuda=CUDA | {"is_initialized": lambda: False, "device_count": lambda: 1}))
        assert devices() == (self.PLAIN, Device("cuda:0", "cuda", None, None, "not in use yet"))
        assert devices(ask_torch=True)[1] == Device("cuda:0", "cuda", 1000, 100, "Card 0")

    def test_a_card_that_does_not_answer_says_why(self, cpu: None, torch_is: Callable[[Any], None]) -> None:
        torch_is(fake_torch(cuda=CUDA | {"mem_get_info": refused, "device_count": lambda: 1}))
        told = "torch cannot tell: RuntimeError: no kernel image is available"
        assert devices() == (self.PLAIN, Device("cuda:0", "cuda", None, None, told))

    def test_apple_silicon(self, cpu: None, torch_is: Callable[[Any], None]) -> None:
        numbers = {"recommended_max_memory": lambda: 900, "driver_allocated_memory": lambda: 300}
        torch_is(fake_torch(mps=numbers))
        told = "Apple GPU, shares the machine's memory"
        assert devices() == (self.PLAIN, Device("mps", "mps", 900, 600, told))
        torch_is(fake_torch(mps={"recommended_max_memory": refused}))
        told = "torch cannot tell: RuntimeError: no kernel image is available"
        assert devices() == (self.PLAIN, Device("mps", "mps", None, None, told))

    def test_a_broken_torch_is_told_and_not_raised(self, cpu: None, torch_is: Callable[[Any], None]) -> None:
        torch_is(ModuleType("torch"))  # half imported: it has no attribute yet
        (found,) = devices()
        assert found.description.startswith("2 cores, x86_64; torch cannot tell: AttributeError: ")

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (ModuleNotFoundError("No module named 'torch'", name="torch"), "torch is not installed"),
            (
                ModuleNotFoundError("No module named 'sympy'", name="sympy"),
                "torch cannot tell: ModuleNotFoundError: No module named 'sympy'",
            ),
            (
                OSError("libc10.so: undefined symbol"),
                "torch cannot tell: OSError: libc10.so: undefined symbol",
            ),
        ],
    )
    def test_a_torch_that_cannot_be_imported_is_told_and_not_raised(
        self, cpu: None, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
    ) -> None:
        real = builtins.__import__

        def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "torch":
                raise error
            return real(name, *args, **kwargs)

        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.setattr(builtins, "__import__", refuse)
        (found,) = devices(ask_torch=True)
        assert found.description == f"2 cores, x86_64; {told}"

    def test_a_container_has_the_memory_of_its_limit(
        self, cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        (tmp_path / "memory.max").write_text("1000000")
        (tmp_path / "memory.current").write_text("300000")
        told = "2 cores, x86_64; limited to 1.0 MB by cgroup v2"
        assert devices() == (Device("cpu", "cpu", 1_000_000, 700_000, told),)

    @pytest.mark.gpu
    def test_a_real_accelerator_has_memory(self) -> None:
        found = devices(ask_torch=True)[1:]
        assert found and all(0 < (d.free or 0) <= (d.total or 0) for d in found)
