"""What PyInstaller does not find by itself: the Lua scripts."""

from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("swapstore")
