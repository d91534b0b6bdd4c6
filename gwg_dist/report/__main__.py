from gwg_dist.report.cli import main

if __name__ == "__main__":
    main()
