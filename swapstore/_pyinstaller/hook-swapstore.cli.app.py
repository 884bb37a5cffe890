"""What PyInstaller does not find by itself: the commands, which are imported when they are called."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("swapstore.cli")
