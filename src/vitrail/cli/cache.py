"""vitrail cache"""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli.options import Json


def command(
    clear: Annotated[bool, typer.Option("--clear", help="Take all of it away.")] = False,
    limit: Annotated[
        str | None, typer.Option(help="Take away what was unused for longest, down to a size such as 10GB.")
    ] = None,
    json: Json = False,
) -> None:
    """List decoded images on the disk, or clear them.

    Clearing costs only time, also for indexes of tar shards. They lie below $VITRAIL_CACHE, else in the user's cache
    folder; the latest used come first.
    """
    from vitrail.cli.output import print_json, print_line, print_table, say
    from vitrail.data import cache_entries
    from vitrail.data.cache import cache_root
    from vitrail.data.cache_entries import parse_bytes, show_bytes
    from vitrail.errors import ConfigError

    if clear and limit is not None:
        raise ConfigError("--clear takes all away, --limit a part; leave one of them out")
    removed, unindexed = None, (0, 0)
    if clear or limit is not None:
        removed = cache_entries.clear_cache(0 if limit is None else parse_bytes(limit))
    if clear:
        unindexed = cache_entries.clear_shard_indexes()
    entries, indexes = cache_entries.list_entries(), cache_entries.shard_indexes()
    total = sum(entry.num_bytes for entry in entries)
    if json:
        rows = [
            {
                "source": entry.source,
                "image_size": entry.image_size,
                "images": entry.num_images,
                "bytes": entry.num_bytes,
                "path": str(entry.folder),
            }
            for entry in entries
        ]
        shards = {"folder": str(cache_entries.shards_root()), "indexes": indexes[0], "bytes": indexes[1]}
        gone = {} if removed is None else {"removed": {"sets": removed[0], "bytes": removed[1]}}
        if clear:
            gone["removed"] |= {"shard_indexes": unindexed[0], "shard_bytes": unindexed[1]}
        print_json({"folder": str(cache_root()), "bytes": total, "sets": rows, "shards": shards, **gone})
        return
    if removed is not None:
        say(f"Taken away: {removed[0]:,} set{'s' * (removed[0] != 1)} of images, {show_bytes(removed[1])}")
    if unindexed[0]:
        say(f"Taken away: the indexes of {_shards(unindexed[0])}, {show_bytes(unindexed[1])}")
    if indexes[0]:
        print_line(
            f"The indexes of {_shards(indexes[0])} take {show_bytes(indexes[1])} in {cache_entries.shards_root()}"
        )
    if not entries:
        print_line(f"There are no decoded images in {cache_root()}")
        return
    columns = [
        (entry.source, entry.image_size, f"{entry.num_images:,}", show_bytes(entry.num_bytes)) for entry in entries
    ]
    print_table(("images of", "size", "number", "on disk"), columns)
    print_line(f"{show_bytes(total)} in {cache_root()}")


def _shards(number: int) -> str:
    return f"{number:,} tar shard{'s' * (number != 1)}"
