"""The paper's story on a real language model of 135 M parameters, with its real text benchmarks, on two cores."""
