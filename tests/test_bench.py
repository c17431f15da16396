import pytest
from conftest import run


def test_a_row_for_each_size_and_number_of_images():
    flags = "--sizes 28 64 --images 40 20 --steps 1 --stages 2 --batch-size 16 --epochs 3 --threads 1"
    lines = [line.split() for line in run("bench.py", *flags.split())[0].splitlines()]
    assert lines[0][0] == "PHANTOM"
    small, large = (line for line in lines if line and line[0] in ("28", "64"))
    assert 0 < float(small[3]) < float(large[3])  # GFLOP an image
    assert float(small[1]) * float(small[2]) == pytest.approx(546, rel=0.2)  # seconds an epoch of 546, images a second
    assert [line[0] for line in lines if line and line[0] in ("20", "40")] == ["20", "40"]
    shares = [int(line[0].rstrip("%")) for line in lines[-8:]]
    assert lines[-9][1] == "operator" and 50 < sum(shares) <= 104 and shares == sorted(shares, reverse=True)
    assert "convolution" in lines[-8][1]
