"""What operating systems and programs that synchronise folders drop on a medium (FORMAT.md 2.9), by the names.

None of it belongs to a store, and none of it is ever read or entered.
"""

from __future__ import annotations

import re

# Names in any case, as FAT and exFAT have no other; with their origins. Each has a character that no mission id has:
# RECYCLER of Windows XP, which would be the ref of a mission `recycler`, is none of them. Compiled when used first:
# most takeoff checks need none of it.
_NAMES = r"""
      \.DS_Store | \._.* | \.Spotlight-V100 | \.Trashes | \.fseventsd | \.TemporaryItems | \.DocumentRevisions-V100
    | \.apdisk | \.metadata_never_index | \.VolumeIcon\.icns | \.com\.apple\..*                     # macOS
    | \.AppleDouble | \.AppleDB | \.AppleDesktop | Network\ Trash\ Folder | Temporary\ Items # servers for macOS
    | @eaDir | \#recycle                                                                           # Synology
    | LOST\.DIR                                                                                    # Android
    | desktop\.ini | Thumbs\.db | ehthumbs\.db | System\ Volume\ Information | \$RECYCLE\.BIN
    | found\.[0-9]{3}                                                                              # Windows
    | FSCK[0-9]{4}\.(REC|[0-9]{3}) | \.goutputstream-[A-Z0-9]{6}
    | lost\+found | \.Trash-[0-9]+ | \.directory | \.nfs[0-9a-f]+ | \.fuse_hidden[0-9a-f]+        # Linux
    | .*\.sync-conflict-[0-9]{8}-[0-9]{6}.* | \.stfolder | \.stversions | ~syncthing~.*\.tmp      # Syncthing
    | .*\ \(.*conflicted\ copy.*\).*                                                               # Dropbox, Nextcloud
    | \.dropbox(\.cache)? | \.(nextcloud|owncloud)sync\.log | \.sync_[0-9a-f]{12}\.db(-shm|-wal)?
    """


def is_dropping(name: str) -> bool:
    """Return whether the name of a file or a folder is one that something else than this program drops on media."""
    return re.fullmatch(_NAMES, name, re.VERBOSE | re.IGNORECASE | re.DOTALL) is not None
