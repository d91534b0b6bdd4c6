from gwg_dist.bench.cli import main

if __name__ == "__main__":
    main()
