//! Pages that people see in the browser: plain HTML without scripts, in the language that the browser asks for.
