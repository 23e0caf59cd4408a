//! The modules of the image: which loaded object an address belongs to, and which number it has in the log.
//!
//! What is there at the start stays and is listed once. What comes later is noticed when an address in it is first
//! looked up: glibc's `_dl_find_object` answers without a lock and without memory of its own; dlopen is not hooked. The
//! list only grows; nobody ever waits for it. A module that is unloaded keeps its number for good: another library at
//! the same address gets another one, the same library at the same address its old one.
//! Where `_dl_find_object` is missing (glibc before 2.35), libraries opened later are unknown.

use crate::elf::{self, MAX_BUILD_ID, Object, Span};
use crate::memory;
use crate::unwind::Definitions;
use core::ffi::{CStr, c_char, c_void};
use core::ptr::null;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

const MAX_PATH: usize = 4096;

/// A loaded object. Never freed, also when it is unloaded.
pub(crate) struct Module {
    /// Its number in the log, from 1.
    pub(crate) id: u32,
    /// From its lowest to its highest mapped address.
    pub(crate) span: Span,
    /// What is added to the file's addresses.
    pub(crate) bias: usize,
    /// Where it was loaded from, as the loader has it; `[vdso]` for the kernel's.
    pub(crate) path: &'static [u8],
    /// The search table of its unwind data and what follows it; length 0 when it has none.
    pub(crate) unwind_table: Span,
    /// Its unwind data (`.eh_frame`), to the end of their segment.
    pub(crate) unwind_data: Span,
    build_id: [u8; MAX_BUILD_ID],
    build_id_len: usize,
    /// There when the image started: never unloaded.
    lasting: bool,
    gone: AtomicBool,
    /// The epoch in which the log last got its line; 0: never.
    defined: AtomicU32,
    next: *const Module,
}

// SAFETY: all but the atomics is written before the module is published and never after.
unsafe impl Sync for Module {}

impl Module {
    /// The build id; empty when the file has none.
    pub(crate) fn build_id(&self) -> &[u8] {
        self.build_id.get(..self.build_id_len).unwrap_or_default()
    }

    /// Sees to it that the log has the module's line; false when the line could not be kept.
    pub(crate) fn define(&self, epoch: u32, definitions: &mut dyn Definitions) -> bool {
        if self.defined.load(Acquire) == epoch {
            return true;
        }
        let kept = definitions.module(self);
        if kept {
            self.defined.store(epoch, Release);
        }
        kept
    }

    fn is(&self, span: Span, path: &[u8], build_id: &[u8]) -> bool {
        self.span == span && self.path == path && self.build_id() == build_id
    }
}

/// glibc's answer to `_dl_find_object`, as <dlfcn.h> declares it on x86-64.
#[repr(C)]
struct FoundObject {
    flags: u64,
    from: usize,
    to: usize,
    link_map: *const LinkMap,
    unwind_table: *const u8,
    reserved: [u64; 7],
}

/// The public head of the loader's description of an object (<link.h>).
#[repr(C)]
struct LinkMap {
    bias: usize,
    name: *const c_char,
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> i32;

static HEAD: AtomicPtr<Module> = AtomicPtr::new(core::ptr::null_mut());
static LAST_ID: AtomicU32 = AtomicU32::new(0);
static FIND_OBJECT: AtomicUsize = AtomicUsize::new(0);
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// Changes whenever what was learnt about an address may not hold any more.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Acquire)
}

/// Makes everybody forget what was learnt about addresses.
pub(crate) fn next_generation() {
    let generation = GENERATION.fetch_add(1, AcqRel).wrapping_add(1);
    if generation.is_multiple_of(1 << 16) {
        // Rules and numbers look at 16 bits only.
        crate::unwind::forget_rules();
    }
}

/// Makes memos void and keeps rules and numbers, which look at 16 bits of the generation only.
#[cfg(test)]
pub(crate) fn void_memos() {
    GENERATION.fetch_add(1 << 16, AcqRel);
}

/// Lists what is loaded; `exe`: the program's own path. Once, from the initialisation: the loader may be at work in this
/// thread, but in no other.
pub(crate) fn start(exe: &[u8]) {
    let find_object = elf::next_symbol(c"_dl_find_object").unwrap_or(0);
    FIND_OBJECT.store(find_object, Release);
    elf::find_object(|object, path| {
        list(object, path, exe);
        None::<()>
    });
}

fn list(object: &Object, path: &CStr, exe: &[u8]) {
    // SAFETY: getauxval only reads the auxiliary vector.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    let path = match path.to_bytes() {
        _ if object.span().at == vdso => b"[vdso]",
        b"" => exe,
        path => path,
    };
    let _ = add(HEAD.load(Acquire), object, path, true);
}

/// Makes the log's lines about all modules that are loaded now.
pub(crate) fn define_all(epoch: u32, definitions: &mut dyn Definitions) {
    define_from(HEAD.load(Acquire), epoch, definitions);
}

/// Sees to it that the log has the line of module `id`; false when it could not be kept.
pub(crate) fn define(id: u32, epoch: u32, definitions: &mut dyn Definitions) -> bool {
    modules(HEAD.load(Acquire))
        .find(|module| module.id == id)
        .is_some_and(|module| module.define(epoch, definitions))
}

/// The list begins with the newest module, the log with the oldest.
fn define_from(newest: *const Module, epoch: u32, definitions: &mut dyn Definitions) {
    let mut last = null();
    while last != newest {
        let Some(oldest) = modules(newest)
            .take_while(|module| !core::ptr::eq(*module, last))
            .last()
        else {
            return;
        };
        if !oldest.gone.load(Acquire) {
            oldest.define(epoch, definitions);
        }
        last = oldest;
    }
}

fn modules(mut at: *const Module) -> impl Iterator<Item = &'static Module> {
    core::iter::from_fn(move || {
        // SAFETY: a published module is complete and never freed.
        let module = unsafe { at.as_ref() }?;
        at = module.next;
        Some(module)
    })
}

/// The module that `address` belongs to. Hook-safe; takes memory only for a module that is new.
pub(crate) fn find(address: usize) -> Option<&'static Module> {
    let head = HEAD.load(Acquire);
    let mut known =
        modules(head).filter(|module| module.span.contains(address) && !module.gone.load(Acquire));
    let found = known.next();
    if found.is_some_and(|module| module.lasting) || FIND_OBJECT.load(Relaxed) == 0 {
        return found;
    }
    // What can go away is believed only while the loader says so too.
    note(head, &find_object(address)?)
}

/// Whether a module that came after the start is still what lies at its address.
fn is_loaded(module: &Module) -> bool {
    find_object(module.span.at).is_some_and(|found| {
        // SAFETY: the loader says that this object is loaded.
        unsafe { describe(&found) }
            .is_some_and(|(object, path)| module.is(object.span(), path, object.build_id()))
    })
}

fn find_object(address: usize) -> Option<FoundObject> {
    let at = FIND_OBJECT.load(Relaxed);
    if at == 0 {
        return None;
    }
    // SAFETY: the word holds the address of the loader's function, whose type this is.
    let find: FindObject = unsafe { core::mem::transmute::<usize, FindObject>(at) };
    let mut found = FoundObject {
        flags: 0,
        from: 0,
        to: 0,
        link_map: null(),
        unwind_table: null(),
        reserved: [0; 7],
    };
    // SAFETY: the function takes any address and fills the structure.
    let answer = unsafe { find(address as *mut c_void, &raw mut found) };
    (answer == 0 && !found.link_map.is_null()).then_some(found)
}

/// What the loader knows of an object that it has found.
///
/// # Safety
/// The object must be loaded as long as the answer is used.
unsafe fn describe<'a>(found: &FoundObject) -> Option<(Object<'a>, &'a [u8])> {
    // SAFETY: the loader keeps its description while the object is loaded.
    let link_map = unsafe { &*found.link_map };
    // SAFETY: as above.
    let object = unsafe { Object::at(found.from, link_map.bias) }?;
    let path: &[u8] = if link_map.name.is_null() {
        b""
    } else {
        // SAFETY: the loader's names are NUL-terminated and kept while the object is loaded.
        unsafe { CStr::from_ptr(link_map.name) }.to_bytes()
    };
    Some((object, path))
}

/// The module that the loader has found: listed already, or again, or new.
fn note(mut head: *const Module, found: &FoundObject) -> Option<&'static Module> {
    // SAFETY: code of the object is on this thread's stack: it is loaded.
    let (object, path) = unsafe { describe(found) }?;
    let (span, build_id) = (object.span(), object.build_id());
    loop {
        for module in modules(head).filter(|module| !module.lasting) {
            let gone = module.gone.load(Acquire);
            if module.is(span, path, build_id) {
                // Without a build id only a path and a place are equal: not enough once it was unloaded.
                if gone && build_id.is_empty() {
                    continue;
                }
                if gone {
                    module.defined.store(0, Release);
                    module.gone.store(false, Release);
                    next_generation();
                }
                return Some(module);
            }
            if !gone && module.span.at < span.end() && span.at < module.span.end() {
                // It went without our dlclose hook: libc closes its own character set modules so.
                module.gone.store(true, Release);
                next_generation();
            }
        }
        match add(head, &object, path, false) {
            Ok(module) => {
                next_generation();
                return module;
            }
            Err(now) => head = now,
        }
    }
}

/// Lists an object that no loader knows, as if it had been there from the start.
#[cfg(any(test, fuzzing))]
pub(crate) fn pretend(object: &Object) -> bool {
    let added = add(HEAD.load(Acquire), object, b"/pretended", true);
    added.is_ok_and(|module| module.is_some())
}

/// Lists a module in front of `head`; `Err` with the new head when somebody was quicker.
fn add(
    head: *const Module,
    object: &Object,
    path: &[u8],
    lasting: bool,
) -> Result<Option<&'static Module>, *const Module> {
    let (Some(path), Some(place)) = (
        keep(path),
        memory::bump(size_of::<Module>(), align_of::<Module>()),
    ) else {
        return Ok(None);
    };
    let mut build_id = [0; MAX_BUILD_ID];
    let id = object.build_id();
    build_id
        .iter_mut()
        .zip(id)
        .for_each(|(to, from)| *to = *from);
    let unwind_table = object.unwind_table().unwrap_or_default();
    let unwind_data = crate::unwind::unwind_data_of(unwind_table)
        .and_then(|at| object.rest_of_segment(at))
        .unwrap_or_default();
    let module = place.cast::<Module>().as_ptr();
    // SAFETY: the memory is of this size and alignment, and ours alone until it is published.
    unsafe {
        module.write(Module {
            id: LAST_ID.fetch_add(1, Relaxed) + 1,
            span: object.span(),
            bias: object.bias,
            path,
            unwind_table,
            unwind_data,
            build_id,
            build_id_len: id.len(),
            lasting,
            gone: AtomicBool::new(false),
            defined: AtomicU32::new(0),
            next: head,
        });
    }
    match HEAD.compare_exchange(head.cast_mut(), module, AcqRel, Acquire) {
        // SAFETY: it is complete and never freed.
        Ok(_) => Ok(Some(unsafe { &*module })),
        Err(now) => Err(now),
    }
}

/// A copy of a path for the life of the process.
fn keep(path: &[u8]) -> Option<&'static [u8]> {
    let path = path.get(..path.len().min(MAX_PATH))?;
    let place = memory::bump(path.len().max(1), 1)?.as_ptr();
    // SAFETY: the place is as long as the path and nobody else's; it is never freed.
    unsafe {
        place.copy_from_nonoverlapping(path.as_ptr(), path.len());
        Some(core::slice::from_raw_parts(place, path.len()))
    }
}

/// Libraries may go: to be called before the real dlclose.
pub(crate) fn dlclosing() {
    next_generation();
}

/// Libraries may have gone: to be called after the real dlclose. Lists no new ones.
pub(crate) fn dlclosed(definitions: &mut dyn Definitions) {
    if FIND_OBJECT.load(Relaxed) != 0 {
        for module in modules(HEAD.load(Acquire)) {
            let open = !module.lasting && !module.gone.load(Acquire);
            if open && !is_loaded(module) && !module.gone.swap(true, AcqRel) {
                definitions.unload(module.id);
            }
        }
    }
    next_generation();
}

#[cfg(test)]
mod tests {
    use super::{FIND_OBJECT, Relaxed, find, start};
    use std::sync::Once;

    fn started() {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| start(b"/the/program"));
    }

    #[test]
    fn the_loaders_own_lookup_is_found_where_dlsym_finds_it() {
        started();
        // SAFETY: a lookup by name has no precondition.
        let expected = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        assert_eq!(FIND_OBJECT.load(Relaxed), expected as usize);
    }

    #[test]
    fn code_belongs_to_the_module_that_it_was_loaded_with() {
        started();
        let here = find(started as *const () as usize).expect("our own module");
        assert_eq!(here.path, b"/the/program");
        assert!(find(0x1000).is_none());
    }
}
