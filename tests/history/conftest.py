# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixtures and the supervisor of the mounted tests serve here too."""
import importlib.util
import os

_path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "mount", "conftest.py")
_spec = importlib.util.spec_from_file_location("mount_conftest", _path)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})
