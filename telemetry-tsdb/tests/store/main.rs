//! The whole store on a simulated disk, against a model: what was acknowledged is there, equal, once; what is there
//! was written; whatever the disk did.

mod damage;
mod life;
mod plain;
