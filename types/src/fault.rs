//! Switches for rules that tests break on purpose.

/// Makes a crate's `Fault` and its functions `on` and `with`: rules that tests leave out, one at a time, to show that the tests notice.
///
/// The switch is there in the crate's own tests and with its cargo feature `faults`, and holds for the calling thread (`with`) or for the
/// whole process (`everywhere`). Otherwise `on` is `false` at compile time: in a release every rule holds.
#[macro_export]
macro_rules! fault_switches {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule that is left out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }

        #[cfg(any(test, feature = "faults"))]
        ::std::thread_local! {
            static NOW: ::std::cell::Cell<Option<Fault>> = const { ::std::cell::Cell::new(None) };
        }

        /// Index of the one that is switched on in all threads; any other number for none.
        #[cfg(any(test, feature = "faults"))]
        static EVERYWHERE: ::std::sync::atomic::AtomicUsize = ::std::sync::atomic::AtomicUsize::new(usize::MAX);

        /// Whether `fault` is switched on in this thread, or everywhere.
        #[cfg(any(test, feature = "faults"))]
        pub fn on(fault: Fault) -> bool {
            NOW.with(|now| now.get() == Some(fault))
                || EVERYWHERE.load(::std::sync::atomic::Ordering::Relaxed) == fault as usize
        }

        /// Switches the fault of this name on in all threads for good; whether there is such a one.
        #[cfg(any(test, feature = "faults"))]
        pub fn everywhere(name: &str) -> bool {
            let found = Fault::ALL.iter().find(|fault| ::std::format!("{fault:?}") == name);
            if let Some(fault) = found {
                EVERYWHERE.store(*fault as usize, ::std::sync::atomic::Ordering::Relaxed);
            }
            found.is_some()
        }

        /// Never: the switches are not compiled in.
        #[cfg(not(any(test, feature = "faults")))]
        pub const fn on(_: Fault) -> bool {
            false
        }

        /// Runs `work` with `fault` switched on in this thread.
        #[cfg(any(test, feature = "faults"))]
        pub fn with<T>(fault: Option<Fault>, work: impl FnOnce() -> T) -> T {
            struct Off;
            impl Drop for Off {
                fn drop(&mut self) {
                    NOW.with(|now| now.set(None));
                }
            }
            NOW.with(|now| now.set(fault));
            let _off = Off;
            work()
        }
    };
}
