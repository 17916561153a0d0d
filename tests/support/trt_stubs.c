/* What the TensorRT bindings import from the vendor's libraries, so that they can be imported without these.
 *
 * Every factory gives one object; every slot of its table of functions is `any`, which gives the object again. Its
 * address ends in 32 bits of 1, so what the bindings take for a bool is true and for a count is 1; its first bytes are the
 * address of its table, which read as text are "aaaaa". A structure that is given by value (Dims) is one open dimension.
 * x86-64 Linux only. MAJOR, MINOR, PATCH, BUILD and STREAM come from the compiler's command line.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define OBJECT ((void *)0x100000001)
#define TABLE ((void *)0x6161616161)
#define SLOTS 512

typedef void *(*slot)(void *, void *, void *, void *);

static int monitor_is_next;

static slot *table_of(void *object) { return *(slot **)object; }

/* The slots of IVersionedInterface come first: language, information, two destructors. */
static void call_monitor(void *monitor) {
    slot *table = table_of(monitor);
    ((void (*)(void *, const char *, const char *, int32_t))table[4])(monitor, "a phase", 0, 2);
    ((_Bool(*)(void *, const char *, int32_t))table[5])(monitor, "a phase", 0);
    ((void (*)(void *, const char *))table[6])(monitor, "a phase");
}

static void *any(void *self, void *first, void *second, void *third) {
    if (self != OBJECT) { /* room for a structure: the object is the next argument */
        int64_t dims[9] = {1, -1};
        memcpy(self, dims, sizeof dims);
        return self;
    }
    if (monitor_is_next) {
        monitor_is_next = 0;
        call_monitor(first);
    }
#if STREAM
    if (first == OBJECT && second == OBJECT)
        ((int64_t(*)(void *, const void *, int64_t))table_of(third)[4])(third, "stub engine", 11);
#endif
    (void)third;
    return OBJECT;
}

void stub_monitor_is_next(void) { monitor_is_next = 1; }

__attribute__((constructor)) static void make(void) {
    const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    /* More than the object, so that reading what is taken for a gigabyte of memory begins well and then fails. */
    mmap((void *)0x100000000, 1 << 20, PROT_READ | PROT_WRITE, how, -1, 0);
    mmap((void *)0x6161616000, 1 << 14, PROT_READ | PROT_WRITE, how, -1, 0);
    for (int i = 0; i < SLOTS; i++)
        memcpy((char *)TABLE + i * sizeof(slot), &(slot){any}, sizeof(slot));
    void *const table = TABLE, *const self = OBJECT;
    memcpy(OBJECT, &table, sizeof table);
    memcpy((char *)OBJECT + 8, &self, sizeof self); /* the interfaces forward to this */
}

static void *started(void *logger) {
    const int log = MAJOR > 10 ? 4 : 0; /* a versioned interface from 11 on */
    ((void (*)(void *, int32_t, const char *))table_of(logger)[log])(logger, 1, "words of the stub");
    return OBJECT;
}

void *createInferBuilder_INTERNAL(void *logger, int version) { return (void)version, started(logger); }
void *createInferRuntime_INTERNAL(void *logger, int version) { return (void)version, started(logger); }
void *createInferRefitter_INTERNAL(void) { return OBJECT; }
void *getPluginRegistry(void) { return OBJECT; }
void *getBuilderPluginRegistry(void) { return OBJECT; }
void *createNvOnnxParser_INTERNAL(void) { return OBJECT; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return OBJECT; }
int getNvOnnxParserVersion(void) { return 100; }
int initLibNvInferPlugins(void) { return 1; }
int getInferLibMajorVersion(void) { return MAJOR; }
int getInferLibMinorVersion(void) { return MINOR; }
int getInferLibPatchVersion(void) { return PATCH; }
int getInferLibBuildVersion(void) { return BUILD; }
