import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.h2.mvstore.MVStore;

/** A server of MongoDB's protocol: {@code java MongoServerLauncher FOLDER PORT}. Ends on SIGTERM, with all it was told. */
public class MongoServerLauncher {
    /** mongo-java-server says 8 of itself, and PyMongo 4.20 speaks to 9 and newer only. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    };

    public static void main(String[] arguments) throws IOException {
        Path folder = Path.of(arguments[0]);
        MVStore store = new MVStore.Builder().fileName(folder.resolve("data").toString()).open();
        H2Backend backend = new H2Backend(store);
        backend.version(VERSION);
        MongoServer server = new MongoServer(backend);
        server.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        Files.writeString(folder.resolve("pid"), String.valueOf(ProcessHandle.current().pid()));
        Files.writeString(folder.resolve("ready"), "");
    }
}
