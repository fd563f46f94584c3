"""Arrays in, arrays out: artifacts, tokenizers and runtimes. No database here."""

import os

# Official builds of ONNX Runtime send usage events to their maker, unless told not to before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
