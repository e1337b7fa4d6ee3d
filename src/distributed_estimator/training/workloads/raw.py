"""What a source of data gives: samples as they come, before any is chosen, split or scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RawData:
    """Samples of any number of classes.

    Attributes:
        features: Shape (samples, columns); any real type, an image row by row.
        labels: Class of each sample, an index into `class_names`; shape (samples,).
        class_names: Every class that occurs.
        columns: What each column is called.
        default_classes: The two to tell apart unless others are asked for; None: there must be
            just two.
        image_shape: Rows and columns of an image; None: the features are a table.
        one_unit: Whether the columns share a unit, so that PCA takes them as they are.
        in_test: Which samples make the test part; None: split them. Shape (samples,).
    """

    features: npt.NDArray[Any]
    labels: npt.NDArray[np.intp]
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    default_classes: tuple[str, str] | None = None
    image_shape: tuple[int, int] | None = None
    one_unit: bool = False
    in_test: npt.NDArray[np.bool_] | None = None
