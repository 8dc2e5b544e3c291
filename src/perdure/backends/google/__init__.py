"""Google's Firestore and Datastore: a commit is one atomic write of a session's top and its records, for many sessions at once.

Condition   the version of the session's top, and that records and keys are new (`entities.Write`)
Durability  `quorum`; on an emulator `buffered`
Limits      entities of 1 MiB: larger commits lie in pieces, written first under a name that nothing refers to yet; 16 MiB
Errors      `channel.mapped`, once; a condition that did not hold is judged by reading top and keys, a write without an answer is `Unknown`
"""
