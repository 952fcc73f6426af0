//! `org.varlink.service`: what every varlink service says about itself.

use crate::Error;
use crate::api::INTERFACES;
use crate::table::{Server, interface, interface_not_found};
use crate::types::Empty;

types! {
    /// `GetInfo` reply.
    #[derive(Default)]
    pub struct ServiceInfo {
        /// Who makes it.
        pub vendor: String,
        /// What it is.
        pub product: String,
        /// Its version.
        pub version: String,
        /// Where to read about it; empty if nowhere.
        pub url: String,
        /// Full names of its interfaces.
        pub interfaces: Vec<String>,
    }

    /// `GetInterfaceDescription` parameters.
    #[derive(Default)]
    pub struct InterfaceName {
        /// Full name.
        pub interface: String,
    }

    /// `GetInterfaceDescription` reply.
    #[derive(Default)]
    pub struct InterfaceDescription {
        /// The interface in varlink's definition language.
        pub description: String,
    }
}

interface! {
    /// What every varlink service says about itself.
    interface "org.varlink.service", trait ServiceApi, static SERVICE, rows service_rows, types [];
    /// Names the service and its interfaces.
    Once GetInfo service_info(Empty) -> ServiceInfo;
    /// Describes an interface.
    Once GetInterfaceDescription interface_description(InterfaceName) -> InterfaceDescription;
}

impl<A: Server> ServiceApi for A {
    async fn service_info(&self, _: Empty) -> Result<ServiceInfo, Error> {
        Ok(ServiceInfo {
            vendor: "rcd".to_owned(),
            product: "rcd, a rootless container engine".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: String::new(),
            interfaces: INTERFACES
                .iter()
                .map(|interface| interface.name.to_owned())
                .collect(),
        })
    }

    async fn interface_description(
        &self,
        name: InterfaceName,
    ) -> Result<InterfaceDescription, Error> {
        let found = INTERFACES
            .iter()
            .find(|interface| interface.name == name.interface);
        let interface = found.ok_or_else(|| interface_not_found(&name.interface))?;
        Ok(InterfaceDescription {
            description: crate::idl::print(interface),
        })
    }
}
