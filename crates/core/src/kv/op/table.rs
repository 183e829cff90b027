//! The types that derive from the table of operations.

/// Declares the operations, with the byte that each has in encodings, and derives the types that hold any of them.
macro_rules! operations {
    (
        commands { $($command_code:literal => $command:ident,)* }
        queries { $($query_code:literal => $query:ident,)* }
    ) => {
        /// Names an operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($command,)*
            $($query,)*
        }

        /// A change of one key.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Command {
            $($command($command),)*
        }

        /// The reply to a command.
        #[derive(Clone, Debug, PartialEq)]
        pub enum CommandReply {
            /// Nothing.
            Refused(Refusal),
            $($command(<$command as Operation>::Reply),)*
        }

        /// A read of a shard's state.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Query {
            $($query($query),)*
        }

        /// The reply to a query.
        #[derive(Clone, Debug, PartialEq)]
        pub enum QueryReply {
            $($query(<$query as Operation>::Reply),)*
        }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$command,)* $(Kind::$query,)*];

            /// Its name in metrics and messages.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$command => <$command as Operation>::NAME,)*
                    $(Kind::$query => <$query as Operation>::NAME,)*
                }
            }
        }

        impl Kind {
            /// Draws an operation at random, in proportion to the shares. `below` returns a random number below its
            /// argument, which is the sum of the shares. All workloads draw with this function, so the compiler asks
            /// each of them for the share of a new operation.
            ///
            /// # Panics
            /// If no operation has a share.
            pub fn drawn(share: impl Fn(Kind) -> u32, below: impl FnOnce(u32) -> u32) -> Kind {
                let mut number = below(Kind::ALL.iter().map(|kind| share(*kind)).sum());
                for kind in Kind::ALL {
                    match number.checked_sub(share(*kind)) {
                        Some(rest) => number = rest,
                        None => return *kind,
                    }
                }
                panic!("no operation has a share")
            }
        }

        impl Command {
            /// The key that the command changes.
            pub fn key(&self) -> &Bytes {
                match self {
                    $(Command::$command(command) => command.key(),)*
                }
            }

            /// Checks the limits on the fields, and on all of them together.
            pub fn check(&self) -> Result<(), Invalid> {
                match self {
                    $(Command::$command(command) => command.check(),)*
                }?;
                check_command(self.encoded_len())
            }

            /// Whether it may make the state larger.
            pub fn grows(&self) -> bool {
                match self {
                    $(Command::$command(_) => <$command as Mutate>::GROWS,)*
                }
            }

            /// Changes the state. Every replica calls it with the same state.
            pub fn apply(&self, state: &mut Transaction<'_>) -> CommandReply {
                match self {
                    $(Command::$command(command) => {
                        command.apply(state).map_or_else(CommandReply::Refused, CommandReply::$command)
                    })*
                }
            }
        }

        impl Query {
            /// The key that the query reads; `None` if it goes to each shard separately.
            pub fn key(&self) -> Option<&Bytes> {
                match self {
                    $(Query::$query(query) => query.key(),)*
                }
            }

            /// Checks the limits on the fields.
            pub fn check(&self) -> Result<(), Invalid> {
                match self {
                    $(Query::$query(query) => query.check(),)*
                }
            }

            /// Whether the reply takes long to collect.
            pub fn is_large(&self) -> bool {
                match self {
                    $(Query::$query(_) => <$query as Read>::IS_LARGE,)*
                }
            }

            pub fn answer(&self, machine: &Machine) -> QueryReply {
                match self {
                    $(Query::$query(query) => QueryReply::$query(query.answer(machine)),)*
                }
            }
        }

        operations!(@any Command, CommandReply { $($command_code => $command,)* });
        operations!(@any Query, QueryReply { $($query_code => $query,)* });
        operations!(@encoded CommandReply {
            0 => Refused: Refusal,
            $($command_code => $command: <$command as Operation>::Reply,)*
        });
        operations!(@encoded QueryReply { $($query_code => $query: <$query as Operation>::Reply,)* });
    };

    (@any $all:ident, $replies:ident { $($code:literal => $one:ident,)* }) => {
        impl $all {
            pub fn kind(&self) -> Kind {
                match self {
                    $($all::$one(_) => Kind::$one,)*
                }
            }

            /// Whether it is safe to retry when its outcome is unknown.
            pub fn repeats(&self) -> bool {
                match self {
                    $($all::$one(_) => <$one as Operation>::REPEATS,)*
                }
            }
        }

        operations!(@encoded $all { $($code => $one: $one,)* });

        $(
            impl From<$one> for $all {
                fn from(one: $one) -> $all {
                    $all::$one(one)
                }
            }

            impl Listed for $one {
                type Replies = $replies;

                fn reply(reply: $replies) -> Option<<$one as Operation>::Reply> {
                    match reply {
                        $replies::$one(reply) => Some(reply),
                        _ => None,
                    }
                }
            }
        )*
    };

    (@encoded $all:ident { $($code:literal => $one:ident: $type:ty,)* }) => {
        impl Encoded for $all {
            fn encode(&self, out: &mut impl Sink) {
                match self {
                    $($all::$one(one) => {
                        out.byte($code);
                        one.encode(out);
                    })*
                }
            }

            fn decode(source: &mut impl Source) -> Result<$all, CodecError> {
                match source.code(&[$($code,)*])? {
                    $($code => <$type as Encoded>::decode(source).map($all::$one),)*
                    unknown => Err(CodecError::UnknownCode(unknown)),
                }
            }
        }
    };
}
