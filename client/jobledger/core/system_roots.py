"""The CA certificates that the system trusts. gRPC brings its own, which know no company's CA."""

import os
import ssl
from pathlib import Path


def system_roots() -> bytes | None:
    """Return them in PEM format; None, which means gRPC's own, if there are none.

    The variables SSL_CERT_FILE and SSL_CERT_DIR name others, as for Python's `ssl`, and so does
    GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, which gRPC reads itself.
    """
    if os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return None
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    roots = [ssl.DER_cert_to_PEM_cert(each).encode() for each in found]
    # OpenSSL reads the files of a folder, which are named by hashes, only when it looks for one.
    folder = ssl.get_default_verify_paths().capath
    if not roots and folder is not None:
        roots = [file.read_bytes() for file in sorted(Path(folder).glob("*.[0-9]"))]
    return b"\n".join(roots) or None
