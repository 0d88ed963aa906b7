"""The format of a weight file, from its first bytes and not from its name."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from vfd.errors import MissingFileError, UserError

# A torch file from before version 1.6 starts with this pickled number; any other pickle was written by
# someone else.
_TORCH_LEGACY_MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_WANTED = 'a weight file (.pth, .pt, .th, .bin, .tar, .safetensors, .npz or .pdparams)'


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def weight_file_kind(path: Path) -> str:
    """Return the format of a weight file.

    Args:
        path: the file.

    Returns:
        ``'torch'``, ``'safetensors'``, ``'npz'`` or ``'pickle'`` (a plain pickle, as Paddle writes).

    Raises:
        MissingFileError: the file does not exist.
        UserError: a folder, an empty or truncated file, a git-lfs pointer, a web page, a TorchScript archive,
            or something unknown.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())[:5]
        raise UserError(
            f'{path} is a folder; expected {_WANTED}. It holds: {", ".join(inside) or "no files"}.'
        )
    if not path.exists():
        raise MissingFileError(f'No weight file at {path}. Check the path{_neighbours(path)}.')
    size = path.stat().st_size
    if size == 0:
        raise UserError(f'{path} is empty (0 bytes); expected {_WANTED}. Download or copy it again.')
    with path.open('rb') as stream:
        head = stream.read(512)
    if head.startswith(b'version https://git-lfs'):
        raise UserError(
            f'{path} is a git-lfs pointer of {size} bytes, not the weights. Run "git lfs pull" in its '
            'repository, or download the file itself.'
        )
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml')):
        raise UserError(
            f'{path} is a web page ({size} bytes), not weights: the download failed. Fetch it again.'
        )
    if head.startswith(b'PK\x03\x04'):
        return _zip_kind(path)
    if head[5:9] == b'\0\0\0{':  # length of the header, then JSON; checked first: 0x80 may be a length
        if 8 + int.from_bytes(head[:8], 'little') > size:
            raise truncated(path, 'the safetensors header is longer than the file')
        return 'safetensors'
    if head.startswith(b'\x80'):
        return 'torch' if head[2 : 2 + len(_TORCH_LEGACY_MAGIC)] == _TORCH_LEGACY_MAGIC else 'pickle'
    raise UserError(
        f'{path} ({size} bytes, begins with {head[:8]!r}) is not a known format; expected {_WANTED}.'
    )


def truncated(path: Path, reason: object) -> UserError:
    """Return the error for a damaged file."""
    return UserError(
        f'{path} ({path.stat().st_size} bytes) is truncated or damaged: {reason}. Download or copy it again '
        'and compare its size or checksum with the source.'
    )


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # damaged bytes make the parser raise anything
        raise truncated(path, error) from error
    if any(name.endswith('constants.pkl') for name in names):
        raise UserError(
            f'{path} is a TorchScript archive. Take its weights out with '
            'torch.save(torch.jit.load(FILE).state_dict(), "weights.pth") and give that file.'
        )
    if any(name.endswith('data.pkl') for name in names):
        return 'torch'
    if names and all(name.endswith('.npy') for name in names):
        return 'npz'
    raise UserError(
        f'{path} is a zip archive of {len(names)} other files; expected {_WANTED}. Unpack it first.'
    )


def _neighbours(path: Path) -> str:
    """List weight files beside a missing one, as a hint."""
    suffixes = {'.pth', '.pt', '.th', '.bin', '.tar', '.safetensors', '.npz', '.pdparams'}
    if not path.parent.is_dir():
        return f'; the folder {path.parent} does not exist either'
    found = sorted(p.name for p in path.parent.iterdir() if p.suffix in suffixes)[:5]
    return f'; beside it: {", ".join(found)}' if found else ''
