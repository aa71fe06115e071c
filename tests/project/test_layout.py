"""What the repository's layout must keep true."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_pythons_own_platform_wins_from_the_repositorys_root() -> None:
    code = "import platform, sys; platform.system(); print(platform.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not Path(found.strip()).is_relative_to(ROOT / "platform")


def test_the_tour_says_what_it_lacks(tmp_path: Path) -> None:
    tour = [sys.executable, ROOT / "examples" / "tour.py", tmp_path]
    done = subprocess.run(tour, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no release or no event files here" in done.stdout
