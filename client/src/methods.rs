//! Full names of the methods that the client calls.

macro_rules! methods {
    ($($constant:ident = $name:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: &str = $name;
        )+
        /// All of them.
        #[cfg(test)]
        const ALL: &[&str] = &[$($name),+];
    };
}

methods! {
    LIST = "io.rcd.Container.List";
    CREATE = "io.rcd.Container.Create";
    START = "io.rcd.Container.Start";
    STOP = "io.rcd.Container.Stop";
    KILL = "io.rcd.Container.Kill";
    REMOVE = "io.rcd.Container.Remove";
    WAIT = "io.rcd.Container.Wait";
    INSPECT = "io.rcd.Container.Inspect";
    ATTACH = "io.rcd.Container.Attach";
    LOGS = "io.rcd.Container.Logs";
    EXEC_RUN = "io.rcd.Exec.Run";
    EXEC_START = "io.rcd.Exec.Start";
    EXEC_ATTACH = "io.rcd.Exec.Attach";
    IMAGE_LIST = "io.rcd.Image.List";
    IMAGE_INSPECT = "io.rcd.Image.Inspect";
    IMAGE_PULL = "io.rcd.Image.Pull";
    IMAGE_IMPORT = "io.rcd.Image.Import";
    IMAGE_REMOVE = "io.rcd.Image.Remove";
    VERSION = "io.rcd.System.GetVersion";
    INFO = "io.rcd.System.GetInfo";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_method_is_in_the_table() {
        let rows = rcd_proto::api::INTERFACES
            .iter()
            .flat_map(|known| known.methods);
        let known: Vec<&str> = rows.map(|row| row.name).collect();
        for method in ALL {
            assert!(known.contains(method), "{method}");
        }
    }
}
