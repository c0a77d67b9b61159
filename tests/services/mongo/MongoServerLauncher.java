import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.net.InetSocketAddress;
import java.util.List;
import org.h2.mvstore.MVStore;

/** A server of MongoDB's protocol over a file: {@code java MongoServerLauncher.java FILE PORT}. Ends on SIGTERM. */
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

    public static void main(String[] arguments) {
        // What was acknowledged is in the file after at most 100 ms; ended by SIGTERM, all of it.
        MVStore store = new MVStore.Builder().fileName(arguments[0]).open();
        store.setAutoCommitDelay(100);
        H2Backend backend = new H2Backend(store);
        backend.version(VERSION);
        MongoServer server = new MongoServer(backend);
        server.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        System.out.println("mongodb:/" + server.getLocalAddress());
    }
}
