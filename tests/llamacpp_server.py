"""llama.cpp's own HTTP server on a GGUF file, for tests: `python llamacpp_server.py FILE PORT`."""

import signal
import sys

import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.hostnames, settings.port = ["127.0.0.1"], int(sys.argv[2])
settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads, settings.warmup = 2048, 2, 1, False
settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # half precision would turn ties
settings.model_alias = {"cut-smollm2"}
server = xllamacpp.Server(settings)
signal.pause()
