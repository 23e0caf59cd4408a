// C++ with functions inlined three deep, templates, a class, a lambda and an anonymous namespace.
#include <cstdlib>
#include <string>
#include <vector>

namespace {
struct Pool {
    void *take(size_t size) const { return std::malloc(size); }
};
inline __attribute__((always_inline)) void *leaf(size_t size) {
    Pool pool;
    return pool.take(size);
}
template <typename T> inline __attribute__((always_inline)) T *middle(size_t count) {
    return static_cast<T *>(leaf(count * sizeof(T)));
}
}  // namespace

__attribute__((noinline)) long *outer(size_t count) {
    auto twice = [](size_t n) { return middle<long>(2 * n); };
    long *block = twice(count);
    for (size_t i = 0; i < 2 * count; i++) block[i] = i;
    return block;
}

struct Words {
    std::vector<std::string> list;
    void add(int count);
};

__attribute__((noinline)) void Words::add(int count) {
    for (int i = 0; i < count; i++) list.push_back(std::string(100, 'x'));
}

int main(int argc, char **) {
    Words words;
    words.add(argc);
    std::free(outer(words.list.size()));
    return 0;
}
