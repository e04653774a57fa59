"""A library in the place of CUDA's driver that records what is launched, for the real binding, ``cuda.bindings``.

It reads PTX as far as the list of an entry's parameters, which tells it what lies behind the pointers of a launch. A
context is whatever `cuCtxSetCurrent` named last in the thread. Environment variables of the process say what the GPU is
(``STAND_IN_CAPABILITY``, as in 89) and which function fails, and how (``STAND_IN_FAILURE``, as in ``cuLaunchKernel
700``). Every call that matters becomes a line of JSON in the file ``STAND_IN_LOG``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };
typedef struct { char name[256]; int wide[MOST]; int count; } Entry;
static _Thread_local void *current;
static Entry entries[MOST];
static char *texts[MOST];
static int functions, modules;

static int failure(char const *name) {
    char const *told = getenv("STAND_IN_FAILURE");
    size_t length = strlen(name);
    return told && !strncmp(told, name, length) && told[length] == ' ' ? atoi(told + length) : 0;
}

static void say(char const *text) {
    FILE *log = fopen(getenv("STAND_IN_LOG"), "a");
    fprintf(log, "%s\n", text);
    fclose(log);
}

int cuInit(unsigned flags) { return failure("cuInit"); }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuCtxGetCurrent(void **context) { *context = current; return failure("cuCtxGetCurrent"); }
int cuCtxGetId(void *context, unsigned long long *id) { *id = (uintptr_t)context + 5000; return 0; }
int cuCtxGetDevice(int *device) { *device = 3; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = atoi(getenv("STAND_IN_CAPABILITY"));
    *value = attribute == 75 ? capability / 10 : capability % 10;
    return device == 3 ? 0 : 101;
}
int cuGetErrorString(int status, char const **text) {
    *text = status == 700 ? "an illegal memory access was encountered" : "a failure of the stand-in";
    return 0;
}

int cuModuleLoadDataEx(void **module, void const *image, unsigned count, int *options, void **values) {
    char line[512];
    int code = failure("cuModuleLoadDataEx");
    if (code) {
        for (unsigned i = 0; i < count; ++i)
            if (options[i] == 5) strcpy(values[i], "ptxas fatal: a line of the stand-in");
        return code;
    }
    snprintf(line, sizeof line, "{\"call\": \"load\", \"context\": %llu, \"bytes\": %zu}",
             (unsigned long long)(uintptr_t)current, strlen(image));
    say(line);
    texts[modules] = strdup(image);
    *module = (void *)(uintptr_t)++modules;
    return 0;
}

int cuModuleGetFunction(void **function, void *module, char const *name) {
    char *place = texts[(uintptr_t)module - 1], wanted[300];
    Entry *entry = &entries[functions];
    snprintf(wanted, sizeof wanted, ".visible .entry %s(", name);
    place = strstr(place, wanted);
    if (!place) return 500;
    char *end = strchr(place, ')');
    snprintf(entry->name, sizeof entry->name, "%s", name);
    while ((place = strstr(place, ".param .")) && place < end)
        entry->wide[entry->count++] = !strncmp(place += 8, "u64", 3);
    *function = (void *)(uintptr_t)++functions;
    return failure("cuModuleGetFunction");
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
    char line[512];
    snprintf(line, sizeof line, "{\"call\": \"attribute\", \"attribute\": %d, \"value\": %d}", attribute, value);
    say(line);
    return failure("cuFuncSetAttribute");
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    Entry const *entry = &entries[(uintptr_t)function - 1];
    char line[8192];
    int code = failure("cuLaunchKernel");
    if (code || extra) return code ? code : 1;
    int at = snprintf(line, sizeof line,
                      "{\"call\": \"launch\", \"context\": %llu, \"entry\": \"%s\", \"grid\": [%u, %u, %u], "
                      "\"block\": [%u, %u, %u], \"shared\": %u, \"stream\": %llu, \"arguments\": [",
                      (unsigned long long)(uintptr_t)current, entry->name, gx, gy, gz, bx, by, bz, shared,
                      (unsigned long long)(uintptr_t)stream);
    for (int i = 0; i < entry->count; ++i) {
        long long value = entry->wide[i] ? *(long long *)parameters[i] : *(int *)parameters[i];
        at += snprintf(line + at, sizeof line - at, "%s%lld", i ? ", " : "", value);
    }
    snprintf(line + at, sizeof line - at, "]}");
    say(line);
    return 0;
}

int cuGetProcAddress_v2(char const *name, void **function, int version, uint64_t flags, void *status) {
    *function = dlsym(RTLD_DEFAULT, name);
    return *function ? 0 : 500;
}
"""


def make_or_skip(folder: Path) -> dict[str, str]:
    """The library, in a folder; what a process must have in its environment to find it instead of CUDA's driver."""
    pytest.importorskip("cuda.bindings", reason="CUDA's Python binding is not installed")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is needed")
    library, source = folder / "libcuda.so.1", folder / "driver.c"
    if not library.exists():
        source.write_text(SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, source, "-ldl"], check=True)
    found = os.environ.get("LD_LIBRARY_PATH")
    return {
        "LD_LIBRARY_PATH": f"{folder}:{found}" if found else str(folder),
        "STAND_IN_LOG": str(folder / "log.jsonl"),
        "STAND_IN_CAPABILITY": "89",
    }


def recorded(log: str | Path) -> list[dict[str, Any]]:
    """What was recorded so far; the record is emptied."""
    path = Path(log)
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    path.unlink()
    return [json.loads(line) for line in lines]
