//! `abi!`: a struct that both sides of the border read alike.

/// A type whose every bit pattern is valid and which has no padding.
///
/// # Safety
///
/// The type is `repr(C)`, holds integers and arrays of integers only, and has no padding. `abi!` proves all three;
/// nothing else implements it.
pub unsafe trait Abi: Copy + 'static {}

/// What a field may be: `bool`, `char`, references and enums are not in it.
pub trait Field: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! fields {
    ($($integer:ty),*) => {$(
        impl sealed::Sealed for $integer {}
        impl Field for $integer {}
    )*};
}
fields!(u8, u16, u32, u64, i32, i64);
impl<T: Field, const N: usize> sealed::Sealed for [T; N] {}
impl<T: Field, const N: usize> Field for [T; N] {}

// SAFETY: an integer: no padding, and every bit pattern is valid.
unsafe impl Abi for u64 {}

/// Declares `repr(C)` structs of integers; the compiler refuses padding and any other field type.
macro_rules! abi {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        // SAFETY: repr(C) by the attribute above, integers by the bound checked below, no padding by the assertion.
        unsafe impl $crate::Abi for $name {}

        const _: () = {
            const fn integer<T: $crate::abi::Field>() {}
            $(integer::<$type>();)*
            assert!(
                size_of::<$name>() == 0 $(+ size_of::<$type>())*,
                concat!(stringify!($name), " has padding")
            );
            assert!(size_of::<$name>() % 8 == 0, "memory-mapped cells are multiples of eight bytes");
        };
    )*};
}
