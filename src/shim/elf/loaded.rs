//! The objects that are loaded, as the loader lists them. Takes the loader's lock: for the start only.

use super::symbols::Tables;
use super::{Object, Span};
use core::ffi::{CStr, c_int, c_void};

/// Calls `visit` with each loaded object and its path (the program's own is empty), in the order in which the loader
/// searches; stops when it answers `Some`.
pub(crate) fn find_object<T>(
    mut visit: impl FnMut(&Object, &'static CStr) -> Option<T>,
) -> Option<T> {
    struct Search<'a, T> {
        visit: &'a mut dyn FnMut(&Object, &'static CStr) -> Option<T>,
        found: Option<T>,
    }
    unsafe extern "C" fn step<T>(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes its info, valid during the call, and the pointer given below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search<'_, T>>()) };
        // SAFETY: name and headers of a loaded object live as long as it; objects are not unloaded during the walk.
        let (headers, path) = unsafe {
            let path = match info.dlpi_name.is_null() {
                true => c"",
                false => CStr::from_ptr(info.dlpi_name),
            };
            let count = usize::from(info.dlpi_phnum);
            (core::slice::from_raw_parts(info.dlpi_phdr, count), path)
        };
        search.found = (search.visit)(&Object::new(info.dlpi_addr as usize, headers), path);
        search.found.is_some().into()
    }
    let mut search = Search {
        visit: &mut visit,
        found: None,
    };
    // SAFETY: `step` is given the search that it expects.
    unsafe { libc::dl_iterate_phdr(Some(step::<T>), (&raw mut search).cast()) };
    search.found
}

/// A symbol's address in the objects that the loader searches after this library.
pub(crate) fn next_symbol(name: &CStr) -> Option<usize> {
    let here = next_symbol as *const () as usize;
    let mut past = false;
    find_object(|object, _| {
        if !past {
            past = object.contains(here);
            return None;
        }
        Tables::of(object)?.find(name)
    })
}

/// The address of the definition of a name that the process uses.
pub(crate) fn first_symbol(name: &CStr) -> Option<usize> {
    find_object(|object, _| Tables::of(object)?.find(name))
}

/// The object whose definition of a name the process uses: its bias and path; the program's own path is empty.
pub(crate) fn first_definer(name: &CStr) -> Option<(usize, &'static CStr)> {
    find_object(|object, path| {
        Tables::of(object)?.find(name)?;
        Some((object.bias, path))
    })
}

/// The bias and the path of the object that contains an address; the program's own path is empty.
pub(crate) fn object_of(address: usize) -> Option<(usize, &'static CStr)> {
    find_object(|object, path| object.contains(address).then_some((object.bias, path)))
}

/// The executable segment that holds an address.
pub(crate) fn code_of(address: usize) -> Option<Span> {
    find_object(|object, _| object.code_at(address))
}

#[cfg(test)]
mod tests {
    use super::{code_of, object_of};

    #[test]
    fn a_function_of_libc_lies_in_libcs_code() {
        let address = libc::getpid as *const () as usize;
        let (_, path) = object_of(address).expect("is loaded");
        assert!(
            path.to_str().is_ok_and(|path| path.contains("libc.so")),
            "{path:?}"
        );
        assert!(code_of(address).is_some_and(|code| code.contains(address)));
        let data = &raw const path as usize;
        assert_eq!(code_of(data), None);
    }
}
