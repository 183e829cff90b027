/* fsync and fdatasync that first wait as long as the file says that TEST_SYNC_DELAY_FILE names: so many milliseconds, or
 * `hang`. It is read again every 10 ms, so that a wait ends when the file changes or is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEP_MS 10

static long wanted_ms(void) {
    const char *path = getenv("TEST_SYNC_DELAY_FILE");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    char text[32] = "";
    char *read = fgets(text, sizeof text, file);
    fclose(file);
    if (read == NULL) {
        return 0;
    }
    return strncmp(text, "hang", 4) == 0 ? LONG_MAX : atol(text);
}

static int sync_by(const char *name, int file) {
    for (long waited_ms = 0; waited_ms < wanted_ms(); waited_ms += STEP_MS) {
        struct timespec step = {0, STEP_MS * 1000 * 1000};
        nanosleep(&step, NULL);
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return sync_by("fsync", file); }

int fdatasync(int file) { return sync_by("fdatasync", file); }
