/* Held only by the data of a library that is closed. */
#include <dlfcn.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    void *library = dlopen(argv[argc - 1], RTLD_NOW);
    if (library == NULL)
        return 1;
    void **place = dlsym(library, "place");
    *place = malloc(513);
    return dlclose(library);
}
