"""What clients are shown of a version, in JSON: one form, wherever it stands.

Assumes nothing. Guarantees that any value can be shown and got back: as text if it is UTF-8, else
in base64.

Does not know what was asked.
"""

import base64

from app.shapes import ShownVersion
from app.write import Version


def shown_version(version: Version) -> ShownVersion:
    """The version as it stands in an answer."""
    shown: ShownVersion = {
        "dot": str(version.dot),
        "timestamp": version.timestamp,
        "content_type": version.content_type,
    }
    try:
        return {**shown, "text": version.value.decode()}
    except UnicodeDecodeError:
        return {**shown, "base64": base64.b64encode(version.value).decode()}
