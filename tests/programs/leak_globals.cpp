// Destructors of globals free their blocks before the verdict; an exception in flight is held by its thread.
#include <stdexcept>
#include <string>
#include <vector>

static std::vector<std::string> global(10, std::string(60, 'g'));
static std::string *never_deleted = new std::string(70, 'n');

int main() {
    try {
        throw std::runtime_error(std::string(80, 'e'));
    } catch (const std::exception &) {
        return never_deleted->size() != 70;
    }
}
