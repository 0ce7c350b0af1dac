import getpass
import json
import os
import platform
import shutil
import socket
import subprocess
import types
from pathlib import Path

import pytest
import torch

from vitrail import environment
from vitrail.environment import describe_environment, package_version


@pytest.fixture
def git(tmp_path, monkeypatch):
    """`git("init")` in a new folder; without git the test is skipped."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def run(*arguments):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    return run


def test_it_tells_versions_and_hardware_ready_for_json():
    facts = json.loads(json.dumps(describe_environment("cpu")))
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert all(facts["packages"][name] for name in environment.PACKAGES)
    assert facts["cpus"] == os.cpu_count()
    assert 1 <= facts["usable_cpus"] <= facts["cpus"]
    assert facts["memory_bytes"] is None or facts["memory_bytes"] > 2**28
    assert facts["torch_threads"] == torch.get_num_threads()
    assert facts["device"] == "cpu"
    assert facts["processor"]
    assert "gpu" not in facts


def test_it_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Graphics {device}")
    memory = types.SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    facts = describe_environment("cuda:1")
    assert facts["gpu"] == "Graphics cuda:1"
    assert facts["gpu_memory_bytes"] == 8 * 2**30
    assert facts["cuda"] == torch.version.cuda


def test_no_path_user_or_machine_is_told():
    text = json.dumps(describe_environment("cpu"))
    folders = (Path.home(), Path.cwd(), Path(environment.__file__).parents[2])
    for secret in (*map(str, folders), socket.gethostname(), getpass.getuser()):
        assert len(secret) < 4 or secret not in text  # shorter ones are part of other words


def test_packages_that_are_not_there_have_no_version():
    assert package_version("vitrail") is not None
    assert package_version("no-such-package-of-ours") is None


def test_the_state_of_a_checkout_is_told(tmp_path, git):
    git("init", "-q")
    source = tmp_path / "environment.py"
    source.write_text("x = 1\n")
    assert environment._git_state(tmp_path) is None  # not in it yet
    git("add", "environment.py")
    git("commit", "-qm", "first")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    assert environment._git_state(tmp_path) == {"commit": commit, "changed": False}
    (tmp_path / "untracked.txt").write_text("")
    assert environment._git_state(tmp_path) == {"commit": commit, "changed": False}
    source.write_text("x = 2\n")
    assert environment._git_state(tmp_path) == {"commit": commit, "changed": True}


def test_an_installed_package_has_no_commit(tmp_path, git):
    assert environment._git_state(tmp_path) is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._git_state(Path(environment.__file__).parent) is None


def test_a_processor_without_name_is_told_by_its_kind(monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert environment._processor() == "riscv64"


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert environment._usable_cpus() == 1
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert environment._usable_cpus() == os.cpu_count()


def test_memory_is_what_the_system_tells(monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", lambda name: pages[name], raising=False)
    assert environment._memory_bytes() == 4_096_000
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert environment._memory_bytes() is None
