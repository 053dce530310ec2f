//! Redirects, and the rest of the public listener.

mod clicks;
mod fast_path;
mod forgiving;
mod guesses;
mod pages;
mod paths;
mod redirects;
mod resources;
mod starts;
