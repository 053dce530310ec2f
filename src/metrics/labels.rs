//! Labels: enums whose variants are counted one by one.

/// Declares the enum, each variant with its label.
macro_rules! labels {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of_variant])* $variant,)*
        }

        impl $name {
            /// In the order of their counters.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$variant),*];

            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }

            /// Each label with what was counted for it.
            pub fn labelled<T>(counts: [T; Self::ALL.len()]) -> impl Iterator<Item = (&'static str, T)> {
                Self::ALL.map(Self::label).into_iter().zip(counts)
            }
        }
    };
}
pub(super) use labels;
