"""The images of one row of a batch, as a processor hands them to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Values = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that holds a row's images."""

    shape: tuple[int, ...]
    """Of one row."""
    joined: bool = True
    """Rows of a batch lie behind one another in its first axis; otherwise they have an axis of their own before it."""
    values: Values | None = None
    """Of one row, for whole numbers; None for pixels."""

    def of(self, rows: int) -> tuple[int, ...]:
        """The shape in a batch of so many rows."""
        return (rows * self.shape[0], *self.shape[1:]) if self.joined else (rows, *self.shape)


@dataclass(frozen=True, slots=True)
class RowOfImages:
    """What stands for the images of a row: tensors beside its text, and tokens in it."""

    images: int
    tensors: Mapping[str, Tensor]
    """By the name of the model's argument."""
    image_token: int
    """Id of the token that an image's features take the place of."""
    text: tuple[tuple[int | None, int], ...]
    """Of one image, in order: a token's id, and how often it stands there; None for any token of text."""
    marked_in: str = ""
    """The argument that tells the tokens of images (1) from those of text (0); empty where there is none."""

    @property
    def tokens(self) -> int:
        """Of all the row's images, with the tokens around them."""
        return self.images * sum(count for _, count in self.text)

    def ids(self, other: int) -> list[int]:
        """The tokens' ids, with `other` for those of text."""
        return [other if token is None else token for token, count in self.text * self.images for _ in range(count)]
