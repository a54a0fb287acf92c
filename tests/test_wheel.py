"""The built distribution, installed in a clean environment: what a user gets, without this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"otel_debugstore", "otel_debugstore_exporters", "otel_debugstore_analysis"}
PROGRAM = """
from opentelemetry import trace

tracer = trace.get_tracer(__name__)
for number in range(3):
    with tracer.start_as_current_span("execute_tool count", attributes={"number": number}):
        pass
print("done")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # downloads the dependencies


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with nothing of this checkout or of OpenTelemetry in its environment."""
    foreign = ("OTEL_", "PYTHONPATH", "VIRTUAL_ENV")
    return subprocess.run(
        command,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith(foreign)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def run_well(*command: str | Path, folder: Path) -> str:
    """Return what a command that succeeds prints."""
    done = run(*command, folder=folder)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run_well(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    return folder


@pytest.fixture(scope="module")
def bin_folder(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment that has the wheel and what it requires, nothing else."""
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run_well(python, "-m", "pip", "install", "--quiet", wheel, folder=environment)
    return python.parent


@pytest.fixture
def recorded(bin_folder: Path, tmp_path: Path) -> Path:
    """A folder, empty before, in which a program was recorded by the command of the README."""
    (tmp_path / "app.py").write_text(PROGRAM)
    instrument = (bin_folder / "opentelemetry-instrument", "--traces_exporter", "debugstore")
    done = run(*instrument, bin_folder / "python", "app.py", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    return tmp_path


def test_wheel_has_the_three_packages_and_nothing_else(dist: Path) -> None:
    """Only the three import packages are installed, each with its `py.typed`; no generic name among them."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    assert {name.split("/")[0] for name in files if ".dist-info/" not in name} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(files)


def test_sdist_has_what_building_and_testing_need(dist: Path) -> None:
    """The source distribution holds sources, tests, examples and documents."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        parts = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "tests", "examples", "docs", "exporters"} <= parts


def test_help_is_printed(bin_folder: Path, tmp_path: Path) -> None:
    """`debugstore --help` works anywhere and leaves nothing behind."""
    assert "sessions" in run_well(bin_folder / "debugstore", "--help", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_recorded_and_queried(bin_folder: Path, recorded: Path) -> None:
    """Zero-code recording in an empty folder makes one session below `debug_data` that has its spans."""

    def ask(*arguments: str) -> Any:
        command = [str(bin_folder / "debugstore"), "--data-dir", "debug_data", *arguments, "--format", "json"]
        return json.loads(run_well(*command, folder=recorded))

    assert len(ask("sessions")) == 1
    sql = "SELECT count(*) AS found FROM spans WHERE name = 'execute_tool count'"
    assert ask("sql", sql) == [{"found": 3}]


def test_a_missing_extra_is_named(bin_folder: Path, tmp_path: Path) -> None:
    """`debugstore serve` without its extra says what to install."""
    done = run(bin_folder / "debugstore", "serve", folder=tmp_path)
    assert done.returncode == 2
    assert "pip install 'otel-debugstore[serve]'" in done.stderr
