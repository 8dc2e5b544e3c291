"""Google's own emulator of Firestore and Datastore (from Google's package list; needs Java). It keeps all in memory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.servers.process import HOST, Missing, Server

JAR = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
PLACES = [os.environ.get("CLOUDSDK_ROOT_DIR", ""), "/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk"]
MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


class FirestoreEmulator(Server):
    """The emulator in native mode."""

    name = "firestore"
    install = "gcloud components install cloud-firestore-emulator, and Java"
    obtainable = False
    mode = "firestore-native"
    scheme = "firestore"

    @classmethod
    def program(cls) -> str:
        for place in PLACES:
            if place and (found := Path(place) / JAR).exists():
                cls.found("", "java")
                return str(found)
        raise Missing(f"{cls.name} is not installed: {cls.install}")

    @property
    def url(self) -> str:
        return f"{self.scheme}://test/?emulator={HOST}:{self.port('emulator')}"

    def start(self) -> None:
        flags = [f"--host={HOST}", f"--port={self.port('emulator')}", f"--database-mode={self.mode}"]
        java = [self.found("", "java"), "-Duser.language=en", "-Xmx512m", "-XX:TieredStopAtLevel=1"]
        self.spawn("emulator", [*java, "-cp", self.program(), MAIN, "start", *flags], cwd=self.folder)
        self.wait("its port", self.listens)
        self.wait("its word", lambda: "is now running" in self.log("emulator"))

    def listens(self) -> bool:
        with socket.create_connection((HOST, self.port("emulator")), timeout=1):
            return True


class DatastoreEmulator(FirestoreEmulator):
    """The emulator in Datastore mode."""

    name = "datastore"
    mode = "datastore-mode"
    scheme = "datastore"
